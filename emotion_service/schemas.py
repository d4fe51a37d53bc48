"""The shapes of what goes over HTTP; `/docs.json` is made from them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from emotion_assets.core.classes import EMOTIONS
from emotion_assets.core.image_stats import STATISTICS

Probability = Annotated[float, Field(ge=0, le=1)]


class FaceRegion(BaseModel):
    """A square of an image, in fractions of its width and height; it may reach over the edges."""

    left: float
    top: float
    right: float
    bottom: float


class Prediction(BaseModel):
    """The answer for one image."""

    model_config = ConfigDict(protected_namespaces=())

    prediction_id: str = Field(description="Names this answer in the log and in feedback.")
    emotion: str = Field(description="The most probable emotion.", json_schema_extra={"enum": list(EMOTIONS)})
    probabilities: dict[str, Probability] = Field(
        description=f"Calibrated probability of each of {', '.join(EMOTIONS)}; they sum to 1."
    )
    model_version: str
    features: dict[str, float] = Field(description=f"Statistics of the image: {', '.join(STATISTICS)}.")
    face: FaceRegion | None = Field(
        default=None, description="With `?face=find`: the square that the network was shown."
    )
    heatmap: list[list[Probability]] | None = Field(
        default=None,
        description="With `?heatmap=1`: how much each place speaks for the emotion, rows from the top, 0 to 1.",
    )


class ErrorDetail(BaseModel):
    """What went wrong, for programs and for people."""

    code: str
    message: str


class ErrorResponse(BaseModel):
    """The body of every answer that is not a success."""

    error: ErrorDetail


class ModelInfo(BaseModel):
    """What is known of the model that answers."""

    model_config = ConfigDict(protected_namespaces=())

    model_version: str
    created_at: str
    emotions: list[str]
    image_size_px: int
    temperature: float
    data_fingerprint: str
    metrics: dict[str, float]
    num_parameters: int
    runtime_precision: Literal["int8", "float32"] = Field(description="What the convolutions compute in.")
    stores_images: bool = Field(description="Whether answered images are kept for labelling.")
    keep_days: int = Field(description="After so many days a kept image is removed.")


class Feedback(BaseModel):
    """What a person says the face really shows."""

    prediction_id: str = Field(description="From the answer.")
    emotion: str = Field(json_schema_extra={"enum": list(EMOTIONS)})


class FeedbackResponse(Feedback):
    """The label was accepted; a second one for the same prediction is not."""

    state: str = Field(json_schema_extra={"enum": ["accepted"]})


class LabelRequest(BaseModel):
    """A prediction that wants a label."""

    prediction_id: str
    emotion: str = Field(description="What the network said.")
    confidence: Probability
    reason: str = Field(json_schema_extra={"enum": ["random", "odd", "uncertain"]})
    has_image: bool

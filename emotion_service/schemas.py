"""The bodies of requests and responses."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from emotion_assets.core.image_stats import STATISTICS

Probability = Annotated[float, Field(ge=0, le=1)]


class FaceRegion(BaseModel):
    """A part of an image, in fractions of its width and height; it may extend beyond the edges."""

    left: float
    top: float
    right: float
    bottom: float


class Prediction(BaseModel):
    """The prediction for one image."""

    prediction_id: str = Field(description="Identifies the prediction in the log and in feedback.")
    emotion: str = Field(description="The most probable emotion.")
    probabilities: dict[str, Probability] = Field(
        description="Calibrated probability of each of the model's emotions; they sum to 1."
    )
    model_version: str
    features: dict[str, float] = Field(description=f"Statistics of the image: {', '.join(STATISTICS)}.")
    face: FaceRegion | None = Field(
        default=None, description="With `?face=find`: the square that the network was given."
    )
    heatmap: list[list[Probability]] | None = Field(
        default=None,
        description="With `?heatmap=1`: class activation map of the emotion, 0 to 1, rows from the top.",
    )


class ErrorDetail(BaseModel):
    """An error, for programs (`code`) and for people (`message`)."""

    code: str
    message: str


class ErrorResponse(BaseModel):
    """The body of an error response; that of `/readyz` is BentoML's own."""

    error: ErrorDetail


class ModelInfo(BaseModel):
    """The deployed model."""

    model_version: str
    created_at: str
    emotions: list[str]
    titles: dict[str, str] = Field(description="Display names of the emotions.")
    image_size_px: int
    temperature: float
    data_fingerprint: str
    metrics: dict[str, float]
    num_parameters: int
    runtime_precision: str = Field(
        description="Numeric type of the convolutions.", json_schema_extra={"enum": ["int8", "float32"]}
    )
    stores_images: bool = Field(description="Whether the service stores images for labelling.")
    image_retention_days: int = Field(description="Days after which a stored image is deleted.")


class Feedback(BaseModel):
    """A person's label for a prediction."""

    prediction_id: str = Field(description="From the prediction.")
    emotion: str = Field(description="One of the model's emotions.")


class FeedbackResponse(Feedback):
    """An accepted label; later ones for the same prediction are rejected."""

    state: Literal["accepted"] = "accepted"


class LabelRequest(BaseModel):
    """A prediction that needs a label."""

    prediction_id: str
    emotion: str = Field(description="The predicted emotion.")
    confidence: Probability
    reason: Literal["random", "outlier", "uncertain"]
    has_image: bool

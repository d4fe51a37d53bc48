"""The packed model over HTTP on SERVE_PORT (3001), by `bentoml serve`. Ctrl-C stops it."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

PORT = os.environ.get("SERVE_PORT") or "3001"
HOME = Path(os.environ.get("BENTOML_HOME") or Path.home() / "bentoml")
BENTOML = Path(sys.executable).with_name("bentoml")


def main() -> None:
    """Serve, after checks of what BentoML would explain by a traceback, or not at all."""
    bentos = HOME / "bentos" / "emotion_service"
    try:
        version = (bentos / "latest").read_text().strip()
        (bentos / version / "bento.yaml").read_bytes()
    except FileNotFoundError:
        sys.exit(
            f"No model is packed in {HOME}. Materialize emotion_bento (make ui), or run `make demo` and then "
            "`make serve DEMO=1`."
        )
    except OSError as error:
        sys.exit(f"{error.filename} cannot be read ({error.strerror}). Serve as the user who packed it, or pack again.")
    try:
        socket.create_server(("127.0.0.1", int(PORT))).close()
    except (OSError, OverflowError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a port number"
        sys.exit(
            f"Port {PORT} cannot be used ({reason}). Stop what uses it, or choose another: make serve SERVE_PORT=…"
        )
    os.execv(BENTOML, [BENTOML, "serve", "emotion_service:latest", "--host", "127.0.0.1", "--port", PORT])


if __name__ == "__main__":
    main()

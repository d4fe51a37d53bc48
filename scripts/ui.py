"""Dagster's UI on UI_PORT (3000), and on REPORTS_PORT (3002) the reports that its assets link to. Ctrl-C stops both."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from emotion_assets.core.settings import EmotionSettings

PORTS = {"UI_PORT": "3000", "REPORTS_PORT": "3002"}
CHECKOUT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent


class QuietHandler(SimpleHTTPRequestHandler):
    """Serves files without a line for each."""

    def log_message(self, *_: object) -> None:
        pass


def listen(name: str, port: str) -> socket.socket:
    """Listen on a port, or exit and name the setting that chooses another."""
    try:
        return socket.create_server(("127.0.0.1", int(port)))
    except OSError as error:
        reason = f"{error.strerror}). Does another `make ui` run? Stop it, or choose another port"
    except (OverflowError, ValueError):
        reason = "not a port number). Choose another"
    sys.exit(f"Port {port} cannot be used ({reason}: make ui {name}=…")


def main() -> int:
    """Run both until the UI ends, and return its exit status."""
    reports = EmotionSettings.load().paths.reports
    reports.mkdir(parents=True, exist_ok=True)
    home = Path(os.environ["DAGSTER_HOME"])
    home.mkdir(parents=True, exist_ok=True)
    if not (home / "dagster.yaml").exists():
        shutil.copy(CHECKOUT / "dagster_home" / "dagster.yaml", home)
    ports = {name: os.environ.get(name) or port for name, port in PORTS.items()}
    os.environ.setdefault("EMOTION_REPORTS_URL", f"http://localhost:{ports['REPORTS_PORT']}")
    # Dagster says that it serves even if another program has its port.
    with listen("UI_PORT", ports["UI_PORT"]):
        listen("REPORTS_PORT", ports["REPORTS_PORT"]).close()
    handler = partial(QuietHandler, directory=reports)
    server = ThreadingHTTPServer(("127.0.0.1", int(ports["REPORTS_PORT"])), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    command = [BIN / "dagster", "dev", "-w", "workspace.yaml", "-h", "127.0.0.1", "-p", ports["UI_PORT"]]
    # In the background, a shell hands down an ignored SIGINT, by which `dagster dev` stops its own processes.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with subprocess.Popen(command, cwd=CHECKOUT) as ui:
        # Ctrl-C reaches the UI too, which takes a moment to stop its daemon; a plain kill is passed on.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, lambda *_: ui.terminate())
        return ui.wait()


if __name__ == "__main__":
    sys.exit(main())

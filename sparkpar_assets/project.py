"""Where the project lies. It imports nothing of ours: one stage of the image needs only this."""

from pathlib import Path

PROJECT_ROOT = Path(__file__).resolve().parent.parent

"""The live demo: `emotion-detection`, the command of the installed package (`utils/app/command.py`).

python scr/main.py --help
"""

from utils.app.command import build_parser, main, start

__all__ = ["build_parser", "main"]

if __name__ == "__main__":
    start()

"""What a run saw, in a few lines at its end."""

from utils.config import note, relative


class Summary:
    """Counts frames and faces, and prints what was seen, how fast, and where it was written."""

    def __init__(self, still: bool):
        self.still = still
        self.frames = self.faces = self.frames_with_face = 0

    def count(self, readings: list) -> None:
        """Count a frame and its readings."""
        self.frames += 1
        self.faces += len(readings)
        self.frames_with_face += bool(readings)

    def print(self, seconds: float, failure: str, paths: list) -> None:
        """Print the summary of a run of some seconds; `failure` says why its source ended, if not well."""
        what = "pictures" if self.still else "frames"
        print(
            f"{self.frames} {what} in {seconds:.1f} s ({self.frames / max(seconds, 1e-6):.0f} a second), "
            f"{self.faces} faces on {self.frames_with_face} of them"
        )
        if failure:
            note(failure)
        for path in paths:
            if path.exists():
                print(f"written: {relative(path)}")

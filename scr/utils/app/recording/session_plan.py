"""The plan of a recording session: class at hand, countdown, what is wanted. No window, no files.

Times are seconds of any clock that does not go back.
"""

COUNTDOWN_S = 3.0
"""From the key to the first sample: the hand leaves the keyboard and the expression settles."""
RECORD_S = 10.0


class SessionPlan:
    """Which class is recorded now, when, and how many samples of each are there and wanted."""

    def __init__(self, counts: dict[str, int], wanted: int, label: str | None = None):
        self.counts, self.wanted = counts, wanted
        self.classes = tuple(counts)
        self.label = self.classes[0]
        self.label = label or self.next_label()
        self.begin = self.until = 0.0
        """when recording begins and ends; the countdown runs before"""

    def next_label(self) -> str:
        """Return the first class that still wants samples, or the one at hand."""
        return next((name for name in self.classes if self.counts[name] < self.wanted), self.label)

    @property
    def missing(self) -> dict[str, int]:
        """How many samples each class still wants, of those that want any."""
        return {name: self.wanted - count for name, count in self.counts.items() if count < self.wanted}

    def counting(self, now: float) -> bool:
        """Tell whether the countdown runs."""
        return now < min(self.begin, self.until)

    def recording(self, now: float) -> bool:
        """Tell whether frames are recorded."""
        return self.begin <= now < self.until

    def start_or_stop(self, now: float, countdown_s: float = COUNTDOWN_S) -> None:
        """Begin the countdown; stop it, or the recording, if one of them runs."""
        if now < self.until:
            self.stop()
        else:
            self.begin = now + countdown_s
            self.until = self.begin + RECORD_S

    def stop(self) -> None:
        """End the countdown, or the recording."""
        self.until = 0.0

    def choose(self, label: str) -> None:
        """Take another class; what runs is stopped."""
        self.label = label
        self.stop()

    def count(self) -> None:
        """Count a sample of the class at hand."""
        self.counts[self.label] += 1

    def move_on(self) -> None:
        """Go to the next class that still wants samples when the one at hand has just got its last."""
        if self.counts[self.label] == self.wanted:
            self.choose(self.next_label())

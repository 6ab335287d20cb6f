"""A run: pictures and frames from a source are read, shown, and written to its outputs."""

import os
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from ..config import UserError, note
from ..video.sources import VideoSource
from .pipeline import FaceReader, PictureResult, read_pictures, read_video
from .results.outputs import Outputs
from .results.summary import Summary
from .windows.live_view import LiveWindow, View


@dataclass
class Demo:
    """A run: what reads faces, and where they go; view and window are None if nothing is drawn or shown."""

    reader: FaceReader
    outputs: Outputs
    summary: Summary
    view: View | None
    window: LiveWindow | None

    def run(self, source, jobs: int | None = None) -> None:
        """Work through a source until it or the user ends; jobs: processes that read pictures."""
        if source.kind in ("picture", "folder"):
            self.run_files(source, jobs)
        else:
            self.run_video(source)
        source.tell_news()

    def run_files(self, source, jobs: int | None) -> None:
        """Go through pictures and videos in their order until they end or the user does."""
        pictures = [file for file in source.files if file.is_picture]
        jobs = jobs or (1 if self.window else os.cpu_count())
        with closing(read_pictures(self.reader, pictures, jobs, images=bool(self.view))) as results:
            for file in source.files:
                source.tell_news()
                result = next(results) if file.is_picture else None
                if result and result.problem and source.kind == "picture":
                    raise UserError(f"{result.problem}; choose another")
                if not (self.take_picture(result) if result else self.run_video_file(file)):
                    return

    def take_picture(self, result) -> bool:
        """Write and show what was read from a file; return whether to go on."""
        self.summary.add_picture(result)
        self.outputs.add_picture(result)
        if result.problem:
            note(result.problem)
        elif self.view:
            image = self.view.draw(result.image, result.faces, caption=Path(result.name).name)
            self.outputs.save_picture(result.name, image)
            return not self.window or self.window.show_picture(result.faces)
        return True

    def run_video_file(self, file) -> bool:
        """Go through a video of a folder; return whether to go on."""
        try:
            video = VideoSource(file.name, file.path)
        except UserError as error:
            return self.take_picture(PictureResult(file.name, problem=str(error)))
        with video:
            goes_on = self.run_video(video)
        if video.failure:
            note(video.failure)
        return goes_on

    def run_video(self, source) -> bool:
        """Go through frames until they end or the user does; return whether to go on."""
        with closing(read_video(self.reader, source)) as frames:
            for frame, faces in frames:
                source.tell_news()
                if frame is None:
                    goes_on = not self.window or self.window.idle()
                else:
                    goes_on = self.take_frame(source, frame, faces)
                if not goes_on:
                    return False
        return True

    def take_frame(self, source, frame, faces: list) -> bool:
        """Write and show what was read from a frame; return whether to go on."""
        self.summary.add_frame(frame, faces)
        self.outputs.add_frame(frame, faces)
        if self.view:
            image = self.view.draw(frame.image, faces, frame.timestamp_ms)
            self.outputs.save_frame(source, frame, image)
        return not self.window or self.window.show_frame(frame, faces)

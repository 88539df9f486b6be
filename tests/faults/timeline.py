"""A picture of a run: jobs, faults and workers over one axis of time."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from tests.faults.chaos import Played, Run

WIDTH, MARGIN, RIGHT, LANE, CHART, FOOT = 1600, 120, 24, 30, 240, 70
PAPER, INK, PALE, PEACE = (255, 255, 255), (40, 40, 40), (225, 225, 225), (240, 246, 240)
COLOURS = {
    "kill": (190, 40, 40),
    "workers": (190, 40, 40),
    "redis": (40, 100, 180),
    "store": (200, 130, 20),
    "users": (120, 80, 150),
}
STATES = {"serving": (120, 180, 120), "starting": (240, 210, 110), "stopped": (110, 110, 200), "dead": (190, 40, 40)}


class Timeline:
    """Draws one run; `image` is the picture."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._seconds = max([run.peace_at, 1.0, *run.recorded_at])
        order = list(COLOURS)
        self._lanes = sorted({fault.lane for fault in run.faults}, key=order.index)
        self._crews = sorted({span.crew for span in run.spans})
        self._top = CHART
        height = CHART + LANE * (2 + len(self._lanes) + len(self._crews)) + FOOT
        self.image = Image.new("RGB", (WIDTH, height), PAPER)
        self._draw, self._font = ImageDraw.Draw(self.image), ImageFont.load_default(13)
        self._draw.rectangle((self._x(run.peace_at), 34, self._x(self._seconds), height - FOOT), fill=PEACE)
        self._chart()
        self._points("accepted", run.accepted_at)
        self._points("recorded", run.recorded_at)
        for lane in self._lanes:
            self._faults(lane, [fault for fault in run.faults if fault.lane == lane])
        for crew in self._crews:
            self._worker(crew)
        self._axis()

    def _x(self, second: float) -> float:
        return MARGIN + (WIDTH - MARGIN - RIGHT) * min(second, self._seconds) / self._seconds

    def _write(self, x: float, y: float, text: str) -> None:
        self._draw.text((x, y), text, fill=INK, font=self._font)

    def _lane(self, name: str) -> tuple[int, int]:
        """Upper and lower end of the next lane."""
        top, self._top = self._top, self._top + LANE
        self._write(8, top + 6, name)
        self._draw.line((MARGIN, top + LANE - 1, WIDTH - RIGHT, top + LANE - 1), fill=PALE)
        return top + 4, top + LANE - 5

    def _points(self, name: str, seconds: Sequence[float]) -> None:
        top, bottom = self._lane(name)
        for second in seconds:
            self._draw.line((self._x(second), top + 4, self._x(second), bottom - 4), fill=INK)

    def _faults(self, lane: str, faults: Sequence[Played]) -> None:
        top, bottom = self._lane("kill -9" if lane == "kill" else f"faults: {lane}")
        ordered = sorted(faults, key=lambda fault: fault.began)
        ends = [*(self._x(fault.began) for fault in ordered[1:]), WIDTH]
        for fault, end in zip(ordered, ends, strict=True):
            left, right = self._x(fault.began), max(self._x(fault.ended), self._x(fault.began) + 2)
            self._draw.rectangle((left, top, right, bottom), fill=COLOURS[lane])
            name = fault.name.removeprefix(f"{lane}_").replace("_", " ")
            length = self._draw.textlength(name, self._font) + 6
            if length < right - left:
                self._draw.text((left + 3, top + 2), name, fill=PAPER, font=self._font)
            elif length < end - right and lane != "kill":
                self._draw.text((right + 3, top + 2), name, fill=INK, font=self._font)

    def _worker(self, crew: int) -> None:
        top, bottom = self._lane(f"worker {crew + 1}")
        for span in self._run.spans:
            if span.crew == crew:
                box = (self._x(span.began), top, max(self._x(span.ended), self._x(span.began) + 1), bottom)
                self._draw.rectangle(box, fill=STATES[span.state])

    def _axis(self) -> None:
        for tenth in range(11):
            second = self._seconds * tenth / 10
            self._write(self._x(second) - 10, self._top + 6, f"{second:.0f} s")
        x = float(MARGIN)
        said = {"serving": "serving", "starting": "starting", "stopped": "stopped (SIGSTOP)", "dead": "dead"}
        for text, colour in [*((said[state], colour) for state, colour in STATES.items()), ("left in peace", PEACE)]:
            self._draw.rectangle((x, self._top + 36, x + 16, self._top + 50), fill=colour, outline=PALE)
            self._write(x + 22, self._top + 35, text)
            x += 60 + self._draw.textlength(text, self._font)

    def _chart(self) -> None:
        run = self._run
        unfinished = [(second, accepted - recorded) for second, accepted, recorded in run.open_jobs]
        most = max([10, *(count for _, count in unfinished)])
        bottom, height = CHART - 20, CHART - 66

        def y(count: float) -> float:
            return bottom - height * count / most

        for quarter in range(5):
            count = most * quarter / 4
            self._draw.line((self._x(0), y(count), WIDTH - RIGHT, y(count)), fill=PALE)
            self._write(MARGIN - 40, y(count) - 8, f"{count:.0f}")
        kinds = f"{run.plan.workers} workers, lease {run.plan.lease:g} s, {len(run.kills)} kills, seed {run.plan.seed}"
        self._write(MARGIN, 10, f"Accepted jobs without a record; {kinds}")
        if len(unfinished) > 1:
            self._draw.line([(self._x(second), y(count)) for second, count in unfinished], fill=INK, width=2)


def timeline(run: Run) -> Image.Image:
    """Open jobs, then the moments of acceptance and of the record, the faults by lane, and each worker's life."""
    return Timeline(run).image

"""The moving part of the page: packed columns, and the scripts that draw them in the reader's browser.

Nothing is loaded: scripts and data stand in the page. Why d3 (one unmodified file, 274 KB, ISC license beside
it): scales, axes, ticks and brushes that are tested and known, while the marks are ours, on canvas. Vega-Lite
inlines to four times its size and needs seconds for a map of 100,000 cells; uPlot has no maps and no
brushing between panels. Without JavaScript, and on paper, none of this is shown: the page stands on its own.
"""

from bnprobe.report.browser.contents import Data, data_of
from bnprobe.report.browser.scripts import AWAKE, program, program_of_tables

__all__ = ["AWAKE", "Data", "data_of", "program", "program_of_tables"]

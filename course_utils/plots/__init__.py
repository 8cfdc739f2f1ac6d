"""How do I see it? Each function returns a figure and prints what it shows in a line or two.

The lines are for those who cannot see the picture (they are its alt text, too), and for the notebook tests, which
compare text and skip pictures. What a picture would leave out in silence, such as NaN, is an error; of a curve of
losses the line says it.
One visual language: direct labels instead of legends where they fit, line styles and markers beside colors (so that a
grayscale print still reads), and a palette that color-blind readers can tell apart (Okabe and Ito, 2008).
"""

from course_utils.plots.areas import bars, heat_maps, histogram, matrices, stacked_bars
from course_utils.plots.dots import runs
from course_utils.plots.lines import curves, loss_curves
from course_utils.plots.style import canvas

__all__ = ["bars", "canvas", "curves", "heat_maps", "histogram", "loss_curves", "matrices", "runs", "stacked_bars"]

"""Reports: one HTML page that needs nothing else, for people to keep, send and open anywhere.

`page` puts figures, plots and tables on a page with the plotting code inside; `of_row` is the report of a simulated
row, `of_cluster` of a simulated cluster. The same things in make the same bytes out. Every text is escaped, and the
page asks nobody for anything.
"""

from polcad.report.of_cluster import of_cluster
from polcad.report.of_row import of_row
from polcad.report.page import Figure, Plot, Series, Table, check_writable, page, write

__all__ = ["Figure", "Plot", "Series", "Table", "check_writable", "of_cluster", "of_row", "page", "write"]

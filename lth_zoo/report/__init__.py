"""Reports: the numbers of finished recipes as figures, tables, one HTML page, Markdown and JSON."""

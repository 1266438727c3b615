"""`mlcls browse`: a local web page over a label table, to find, compare and correct.

The parts, from the bottom: `index` (the newest row of each image, in a DuckDB file), `filters` and `queries` (what the page asks),
`corrector` (what people do), `pictures` (images as JPEGs of bounded size), `guard` (who may ask), `app` (the routes) and `server`.
The page is one template and plain JavaScript modules; nothing comes from another origin.
"""

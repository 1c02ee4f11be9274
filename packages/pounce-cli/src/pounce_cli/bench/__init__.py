"""`pounce bench`: how fast a server answers, measured from the outside, alone or side by side with others.

`histogram` holds latencies, `h1` and `h2` speak as clients, `load` drives many of them on several threads, `servers`
starts what is measured, `measure` says in which order, `report` and `page` show what came of it.
"""

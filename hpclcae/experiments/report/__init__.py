"""``hpclcae report``: a run as one self-contained page, with an atlas of its neurons.

An outsider begins with `page.py`::

    page.py        puts the page together; templates/ is what it looks like
    sections.py    facts, tables and figures of the run; what is missing
    atlas.py       which neurons, and what the test images say about each
    curves.py      their responses against shift, scale and rotation
    atlas_page.py  the atlas as JSON and pictures
    sprites.py     many small pictures as few large ones
"""

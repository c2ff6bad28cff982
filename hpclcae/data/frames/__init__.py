"""Frames composed from what was fetched, for training and tests (``hpclcae data frames``).

An outsider begins with `recipe.py`::

    recipe.py     what frames are made from, and how one is made
    build.py      all frames of a dataset
    compose.py    where to crop, how to paste
    heads.py      random people, and pictures of their heads
    head_mesh.py  the shape of a head
    head_look.py  skin, hair, eyes, clothes and light
    scanned_head.py  one real head, scanned with its colours
    rasterize.py  which triangle a pixel sees
    cues.py       whether something shallow tells faces from other things
"""

"""Frames composed from what was fetched, for training and tests (``hpclcae data frames``).

An outsider begins with `recipe.py`::

    recipe.py     what frames are made from, and how one is made
    build.py      all frames of a dataset
    compose.py    where to crop, how to paste
    heads.py      random people, and pictures of their heads
    head_mesh.py  the shape of a head
    head_look.py  skin, hair, eyes, clothes and light
    scanned_head.py  one real head, scanned with its colours
    figure.py     a picture of anything that has colours
    bodies.py     whole bodies of the same mesh, in simple poses
    cats.py       cats of ellipsoids
    rasterize.py  which triangle a pixel sees
    cues.py       whether something shallow tells faces from other things
"""

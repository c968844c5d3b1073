"""`make demo`: the tour a newcomer takes. Real agents, real servers, real traffic, one table.

    stage.py    the cluster that everything plays on
    asking.py   curl and dig, and what was seen in a few words
    tour.py     every try, in order: what is asked, from where, what is expected

It knows the product by its command line only, and proves nothing that `tests/` does not.
"""

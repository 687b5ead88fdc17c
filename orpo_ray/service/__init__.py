"""The control plane: runs submitted, watched and stopped over REST, and a page that shows them.

    app.py        the routes, and who is let in
    schemas.py    what they take and give
    runs.py       the runs: files of the storage, jobs of the cluster
    lines.py      files that grow, page by page
    serving.py    on Ray Serve
    page/         the page: plain HTML, CSS and JavaScript modules

Nothing is kept in memory that the storage does not hold: a service that is started again knows every run.
"""

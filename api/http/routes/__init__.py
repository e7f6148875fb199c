"""The routes, one module for each subject; `api/app.py` lists the routers of all modules."""

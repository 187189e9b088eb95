"""What the pipeline's steps and the operator that runs them share.

`errors` defines exit codes and retry rules, `paths` where an artifact is stored, `manifest` what it consists of, `schemas` the
files in it. `store` reads and writes objects, `commit` turns them into an artifact, `result` reports it to whoever runs the
step, and `cli` gives every step the same options and exit behaviour.
"""

"""What the pipeline's steps and the operator that runs them share.

`errors` defines exit codes and retry rules, `paths` where an artifact is stored, `manifest` what it consists of, `schemas`
the files in it and the columns of their tables. `tables` makes, validates, writes and reads such a table as a
pandas.DataFrame. `store` reads and writes objects, `commit` turns them into an artifact, and `revisions` decides whether one
is returned or made anew beside the earlier ones. `lineage` has what an artifact was made from: how its manifest names that,
how a step opens an artifact by its URI, and the command that prints the tree. `checks` has what `make doctor` and the
programs' command `check` share. `result` reports to whoever runs the step, and `cli` gives every step the same options and
exit behaviour.
"""

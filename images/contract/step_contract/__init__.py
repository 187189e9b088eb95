"""What the pipeline's steps and the operator that runs them agree on, and nothing else.

`exit_codes` says how a step ends, `paths` where an artifact lies, `manifest` what it consists of, `store` reads and writes
objects, `commit` makes an artifact of them, `result` hands the outcome to whoever ran the step, and `program` gives every
step the same options and the same behaviour at its end.
"""

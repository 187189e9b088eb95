"""The checks of `make doctor`: of this machine, of a cluster and what is deployed there, and from inside its pods.

`report` runs them and prints what they find; `laptop` checks this machine; `cluster` holds the deployment for the others:
`resources` (permissions, pods, nodes, quota), `secrets`, `images`, `components` (inside Airflow's pods and the monitor's) and
`step_pods` (short-lived pods like a step's). `program_pods` runs other steps in such pods, for `make verify`.
"""

import sys

from devtools.commands import ROOT

# The images' checks and these share the form of a finding, step_contract.checks.findings, which needs no installation.
sys.path.append(str(ROOT / "images" / "contract"))

"""Planted bugs: a copy of the code with a few words changed. The campaign has to catch each of them.

A bug whose words are no longer in the code refuses to be planted: it would prove nothing.
"""

from collections.abc import Mapping

from tests.faults.mutants.mutant import Mutant
from tests.faults.mutants.python import PYTHON_MUTANTS
from tests.faults.mutants.rust import RUST_MUTANTS

MUTANTS: Mapping[str, Mutant] = {**PYTHON_MUTANTS, **RUST_MUTANTS}

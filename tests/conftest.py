"""What holds for all tests."""

from __future__ import annotations

from hypothesis import settings

# A busy machine takes its time, and time decides no test.
settings.register_profile("argus", deadline=None)
settings.load_profile("argus")

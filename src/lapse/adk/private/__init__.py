"""The differences between versions of ADK, and names that a new version may move or remove.

Such names begin with an underscore, or stand in modules that ADK's documentation does not mention.
No other module of Lapse uses one, or asks which version is installed. Where older versions lack
one, a comment says since which version there is the real thing, and what stands in its place; it is
decided once, by looking for the name. docs/adk_versions.md says what users lack on which version.

`tests/adk/test_adk_private.py` says what each name is for and fails with that sentence if a new
version has moved it. Importing these modules does not import ADK, except for `sessions`.
"""

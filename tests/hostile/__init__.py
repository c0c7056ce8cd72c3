"""Commands given what is made to harm them: thousands of seeded cases, each in its own process.

``python -m tests.hostile`` runs them. What each must end in is in `tests.hostile.judge`.
"""

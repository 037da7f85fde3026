"""The reference case: an exchange's opening bell, before and after. docs/trading.md is its description and its derivation."""

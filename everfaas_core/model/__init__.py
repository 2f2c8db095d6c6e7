"""The words of the house as types: ids, records, states, outcomes, errors. Pure; imports nothing of ours."""

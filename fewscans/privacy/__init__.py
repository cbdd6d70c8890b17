"""Who it is stays here: pseudonyms by a key, an allow-list, one private table, and a search for what leaked.

What is passed on from a scan's file is `fewscans.privacy.allowed`; names of files, patients and sites become keyed
pseudonyms (`pseudonyms`), and what they were called stands in the private table alone (`table`). Why so:
docs/notes/0014-privacy.md.
"""

"""Search for hyper-parameters: equal budgets for every arm, choices on inner folds alone.

`searches` (which there are) and `space` (values into settings) are light, the rules use them; `status` looks at a
search from outside; `search` leads one, `submit` runs its trials as jobs or processes, `trial` is one of them.
"""

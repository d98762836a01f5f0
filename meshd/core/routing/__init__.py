"""Who should answer? Filter, score, pick; then attempts until somebody does.

The parts, in the order a request meets them: `demand` (what is asked), `catalogue` (which nodes
offer the model), `gates` (who may take it), `cost` (when each would be done), `pick` (one of the
near-equals), `ledger` (what this node has sent that no record shows yet), `breaker` (who failed
lately), `deadlines` (how long to wait), and `router`, which holds the state of all of these.
"""

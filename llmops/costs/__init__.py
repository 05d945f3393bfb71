"""What a model costs, and from which volume on it is cheaper than an API: from prices that are data, and from counters.

Every price is a range, as prices are; what follows from them is a range, too, and a comparison of two that overlap
says that it cannot tell.
"""

"""How much memory does a model take, and which models may be in it at once?"""

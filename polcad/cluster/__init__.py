"""Serving clusters: what the pools of instances that serve a model are asked for, can do, and draw.

`nouns` are the words that planners, simulator and daemon share; `profiles` tells what an instance does and draws;
`classes` sorts requests into nine kinds; `prediction` says how much of each is coming. Pure, as the rest of the core.
"""

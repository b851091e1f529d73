"""Comparing an on-prem answer with the cloud's, one file per kind of answer. Pure; nothing of either answer is kept.

`kinds` travels to hosts with modules (standard library only); `answers` needs what a gateway has installed.
"""

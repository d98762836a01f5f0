"""The wire contract of meshd, importable alone: standard library and msgpack, nothing else.

Bytes come first. What crosses between two machines is declared here once and nowhere else:
`messages` and `jobs` name the records, `fields`, `scalars` and `freeform` say what each field may
hold, `limits` says how much, `envelope` and `codec` turn one message into one frame and back,
`service` does the same for the mDNS advert. `SPEC.md` is the normative text, with tables that
`spec` makes from the declarations; `vectors/` holds golden bytes that must keep decoding for ever,
and bytes that must keep being refused. `python -m protocol` reads frames and checks both.

Anything a peer sends either decodes or raises one family of error, `ProtocolError`.
"""

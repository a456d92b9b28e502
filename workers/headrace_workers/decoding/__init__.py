"""Files from strangers are decoded in throw-away processes that can do nothing else.

    supervisor ── Order, 2 descriptors ──► nursery ── fork ──► child: confined, decodes one file, ends
               ◄── Ended ─────────────────         ◄─ answer ─

The nursery (`python -m headrace_workers.decoding FD`) is one process per worker: it has the decoder imported, and
neither network, secrets nor files of the worker. Each child is a fork of it, takes every right away from itself, and
only then reads the file. What it leaves is plain samples; an engine never sees the stranger's bytes.

    decoder        the supervisor's side: files in, files of samples out, or `InvalidInput`
    nursery        the parent of the children: forks, ends what is late, tells how each ended
    confinement    the rights that a child takes away from itself, in layers
    seccomp        the layer of system calls
    recording      the work of a child: FFmpeg's libraries on one open file
    verdict        what the end of a child means for the job
    frames         what the three say to each other
"""

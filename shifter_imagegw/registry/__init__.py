# SPDX-License-Identifier: BSD-3-Clause
"""OCI distribution client: from an image reference to verified manifests and blobs.

Reading order: :mod:`reference` and :mod:`location` (what to ask, whom), :mod:`transport` (one request on the wire),
:mod:`exchange` (redirects, repeats), :mod:`auth` (challenges, tokens), :mod:`manifest` (the documents), :mod:`blobs`
(verified streams) and :mod:`client`, which is all that other rooms call.
"""

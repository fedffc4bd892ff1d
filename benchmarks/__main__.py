"""``python -m benchmarks``: side by side with other engines."""

from benchmarks.cpu import main

raise SystemExit(main())

"""Why a classifier decides as it does, and whether the explanation is true."""

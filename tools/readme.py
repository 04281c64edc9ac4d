"""Copy reports/leaderboard.md into README.md, between its marks: no figure there is typed by hand."""

from pathlib import Path

START, END = (
    "<!-- leaderboard: `make readme` copies it from reports/leaderboard.md -->\n",
    "<!-- end of leaderboard -->",
)


def with_leaderboard(readme: str, leaderboard: str) -> str:
    """`readme` with what stands between the marks replaced by `leaderboard`."""
    before, _, rest = readme.partition(START)
    _, _, after = rest.partition(END)
    return f"{before}{START}\n{leaderboard.strip()}\n\n{END}{after}"


if __name__ == "__main__":
    path = Path("README.md")
    path.write_text(with_leaderboard(path.read_text(), Path("reports/leaderboard.md").read_text()))

"""Time of fits of one planted circle with default arguments.

python benchmarks/fits.py [--max-rows 100000]
"""

from __future__ import annotations

import warnings

from common import OUTPUTS, ROWS, Report, parser, planted_circle, seconds, small_enough, table

import sae_rs


def time_fits(max_rows: int) -> str:
    lines = []
    for n in (n for n in ROWS if n <= max_rows):
        for p in OUTPUTS:
            if not small_enough(n, p):
                lines.append([str(n), str(p), "skipped: memory", "", "", ""])
                continue
            X = planted_circle(n, p)
            model = sae_rs.ManifoldSAE(n_atoms=1)
            taken = seconds(lambda model=model, X=X: model.fit(X))  # type: ignore[misc]
            certificate = model.certificate_
            lines.append(
                [
                    str(n),
                    str(p),
                    f"{taken:.3f}",
                    str(certificate.n_evaluations),
                    certificate.elimination,
                    certificate.status,
                ]
            )
    head = ["rows", "outputs", "seconds", "evaluations", "elimination", "status"]
    return table("Fit of a planted circle, default arguments", head, lines)


def main() -> None:
    command = parser(__doc__)
    command.add_argument("--max-rows", type=int, default=ROWS[-1], help="largest number of rows to time")
    arguments = command.parse_args()
    warnings.simplefilter("ignore", sae_rs.ConvergenceWarning)
    report = Report("fits", "Time of fits", arguments.quick)
    report.add(time_fits(ROWS[1] if arguments.quick else arguments.max_rows))


if __name__ == "__main__":
    main()

"""The 35 problems of Moré, Garbow and Hillstrom, in their order and at customary sizes.

J. J. Moré, B. S. Garbow, K. E. Hillstrom: Testing Unconstrained Optimization Software.
ACM Transactions on Mathematical Software 7 (1981), 17-41.
"""

from experiments.testset import mgh_data, mgh_few, mgh_sized
from experiments.testset.record import TestProblem

MGH: dict[str, TestProblem] = {
    problem.name: problem
    for problem in sorted(
        (*mgh_few.PROBLEMS, *mgh_data.PROBLEMS, *mgh_sized.PROBLEMS),
        key=lambda problem: problem.number,
    )
}

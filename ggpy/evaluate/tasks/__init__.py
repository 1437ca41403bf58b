"""Tasks from local files: multiple choice, classification, and prompts with expected answers."""

from ggpy.evaluate.tasks.examples import KINDS, Task, read_task
from ggpy.evaluate.tasks.report import TaskReport
from ggpy.evaluate.tasks.run import run_task

__all__ = ["KINDS", "Task", "TaskReport", "read_task", "run_task"]

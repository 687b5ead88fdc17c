"""The paper's experiment: recipes × tasks × students × seeds as ordinary runs, compared."""

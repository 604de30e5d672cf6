/* Sums a buffer over ranks some times, as a program in C does: what bench/ranks/main.ts compares with. Returns seconds. */
#include <mpi.h>

double sum_times(float *buffer, int values, int times) {
  double began = MPI_Wtime();
  for (int t = 0; t < times; t++) {
    MPI_Allreduce(MPI_IN_PLACE, buffer, values, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
  }
  return MPI_Wtime() - began;
}

// The matrices that a subgroup multiplies: Sums (SM, SN) += Left (SM, SK) Right (SK, SN).

#needs SM SN SK

alias Left = subgroup_matrix_left<f16, SK, SM>;
alias Right = subgroup_matrix_right<f16, SN, SK>;
alias Sums = subgroup_matrix_result<f32, SN, SM>;

// Places that the compiler knows.

#needs AT LINE_0 LINE_1 LINE_2 LINE_3

const at = AT;
const line_0 = LINE_0;
const line_1 = LINE_1;
const line_2 = LINE_2;
const line_3 = LINE_3;

fn find_places() {}

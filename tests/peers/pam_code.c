/* A PAM module that asks one account a question of its own and takes one answer to it, as modules for one-time codes do. Arguments: the account, the
   answer, `shown` or `unseen` for what is typed, the question. Nobody else is asked. src/bed.rs builds it; what it needs of PAM is declared here, since
   the headers are seldom installed. */
#include <stdlib.h>
#include <string.h>

enum { SUCCESS = 0, AUTH_ERR = 7, IGNORE = 25, ECHO_OFF = 1, ECHO_ON = 2 };

int pam_get_user(void *pam, const char **user, const char *prompt);
int pam_prompt(void *pam, int style, char **response, const char *format, ...);

int pam_sm_authenticate(void *pam, int flags, int argc, const char **argv)
{
    const char *user = NULL;
    char *response = NULL;
    int style, right;

    (void)flags;
    if (argc != 4 || pam_get_user(pam, &user, NULL) != SUCCESS || strcmp(user, argv[0]) != 0)
        return IGNORE;
    style = strcmp(argv[2], "shown") == 0 ? ECHO_ON : ECHO_OFF;
    if (pam_prompt(pam, style, &response, "%s", argv[3]) != SUCCESS || response == NULL)
        return AUTH_ERR;
    right = strcmp(response, argv[1]) == 0;
    free(response);
    return right ? SUCCESS : AUTH_ERR;
}

int pam_sm_setcred(void *pam, int flags, int argc, const char **argv)
{
    (void)pam, (void)flags, (void)argc, (void)argv;
    return IGNORE;
}
